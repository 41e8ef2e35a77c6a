"""The judges that score text: style, content, fluency, and the gate."""
