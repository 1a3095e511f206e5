"""Level 4: audits of gradient code that is not gradprobe's: its direction, scale, noise, seeds and side effects."""
