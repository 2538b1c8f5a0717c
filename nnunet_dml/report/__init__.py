"""From records and cases to pictures. No torch, no nnU-Net."""
