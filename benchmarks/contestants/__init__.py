"""The contestants, one a file, each as `Entrant`."""
