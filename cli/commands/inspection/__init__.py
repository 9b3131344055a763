"""Commands that look: at runs, at presets and at the installation."""
