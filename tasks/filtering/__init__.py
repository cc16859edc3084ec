"""Length and repetition rules: a verdict, a reason and the metrics of every document."""
