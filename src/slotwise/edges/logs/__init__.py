"""Logs of requests and of actions: a row for each that has ended, in files that stay within bounds."""
