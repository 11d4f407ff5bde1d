"""What runs in processes of their own, started by `child.Child`."""
