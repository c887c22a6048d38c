"""Digital chest CTs whose truth is known to the voxel, written in the plan's file formats."""
