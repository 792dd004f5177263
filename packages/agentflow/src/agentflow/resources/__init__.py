"""The resources, async and written by hand; `_sync` is generated from this folder by tools/sync_generator.py."""
