"""What the pages are made of: command line, conversations, turns, speech and the Gradio page.

Imports gradio and omni_backend, never an engine.
"""
