"""What runs in a node: loops, all of them a `Service`, in the order that the supervisor keeps."""
