"""Real pretrained models behind the protocol of the small ones: the same policies and losses train them."""
