"""Traces for OpenTelemetry: a sample of the requests that have ended, as spans."""
