"""Side-by-side measurements: ratios against something real, from one run on one machine."""
