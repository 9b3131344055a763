"""Asking and talking: questions to a trained or named model, and chats whose cache goes on from turn to turn."""
