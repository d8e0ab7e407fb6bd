"""The protocol with the controller: its messages, and the link that carries them."""
