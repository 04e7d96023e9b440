"""How a model is made and improved: recipe in, measured files out. The top layer."""
