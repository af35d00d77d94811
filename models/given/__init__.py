"""Pictures that a request brings: bytes of anybody's to clean pixels, a mask to what may change, and the way back."""
