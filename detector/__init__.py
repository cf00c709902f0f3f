"""RetinaNet: anchors, matching, criterion, suppression, and the Lightning module that joins them.

Letters in shapes: N images, R anchors (all levels together), K classes, L levels, G objects of an
image (padding rows included), F foreground anchors, D detections of an image (padding included).

images      (N, 3, H, W) uint8 until they are on the device, content at the top left, the rest 0
boxes       xyxy, absolute pixels, edges without +1; never normalized, never xywh
labels      of objects 0..K-1; of anchors 0..K-1, K background, -1 ignored (not judged)
anchors     (R, 4), the boxes that the net starts from
logits      (N, R, K), or (N, R, K + 1) for a loss with a background column
deltas      (N, R, 4): dx, dy, dw, dh from an anchor to a box
match       anchors x objects -> label and box of every anchor: foreground, background, ignored
num_foreground  max(1, foreground anchors summed over processes) / processes: the one normalizer
predictions per anchor, before suppression
detections  per object, after suppression, in pixels of the original image
scores      probabilities (..., K), read from the logits by the loss that gave them their meaning
"""
