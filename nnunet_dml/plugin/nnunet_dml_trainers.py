"""What `nnUNet_extTrainer` points nnU-Net at: re-exports and nothing else.

nnU-Net drops the modules of this folder after its search; classes defined elsewhere survive and can be pickled.
"""

from nnunet_dml.nnunet.trainers import *  # noqa: F403
