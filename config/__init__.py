"""The example configuration, the prompt tables and the training presets; installed as `mediqa_config`."""
