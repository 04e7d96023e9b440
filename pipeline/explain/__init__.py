"""What each layer of a checkpoint costs, and what each technique would do to it."""
