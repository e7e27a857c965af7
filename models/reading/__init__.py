"""What readers of images and tables share: labels, names of splits, samples of rows."""
