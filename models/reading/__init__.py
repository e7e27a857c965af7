"""Code shared by the image and table readers: labels, split names, row sampling."""
