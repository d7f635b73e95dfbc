"""Pictures of what happened: figures drawn with matplotlib, and traces for a viewer of timelines."""
