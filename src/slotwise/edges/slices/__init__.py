"""Slices of a device, and how a process is bound to one."""
