"""The caption page: files in, captions to review and export out. The work is `omni_backend.caption`'s."""
