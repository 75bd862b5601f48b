"""What a reply is: answered, refused, or broken; and the one pass that asks and judges."""
