"""What every process tells of its work: traces and logs, by one id from the edge to each denoising step."""
