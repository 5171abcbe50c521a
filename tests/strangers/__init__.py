"""Routing as researchers write it, without a thought of this suite: a right subject and a broken one in each module."""
