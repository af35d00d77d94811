"""The embedded family: tiny models of the real architectures, trained on a captioned world that can be checked."""
