"""Images as uint8 tensors: named data sets, image folders, splits, augmentation."""
