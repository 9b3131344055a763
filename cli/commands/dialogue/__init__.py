"""Commands that ask and talk to a model: `memx ask` and `memx chat`."""
