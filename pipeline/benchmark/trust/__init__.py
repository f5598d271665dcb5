"""How far the trust in tracks is right: fitting it, and measuring its calibration."""
