"""Documents: the operations on them, the values of their fields, and the selections that name them."""
