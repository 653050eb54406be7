"""What goes over the wire, apart from any I/O: bytes in, values out, and back."""
