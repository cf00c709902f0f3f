"""RetinaNet: anchors, matching, criterion, suppression, and the Lightning module that joins them.

boxes anchors backbone retinanet   images -> predictions
matching criterion                 predictions, batch -> named losses (each loss lives in losses/)
postprocess nms diou_nms           predictions -> candidates -> detections (a suppression: nms)
optimization guard module          one update
config run training  evaluation ablation   folders of what is around: text -> tree, run folders,
                                   callbacks, figures (a metric: evaluation), grids of runs

Letters in shapes: N images, R anchors (all levels together), K classes, L levels, G objects of an
image (padding rows included), F foreground anchors, D detections of an image (padding included).

images      (N, 3, H, W) uint8 until they are on the device, content at the top left, the rest 0
boxes       xyxy, absolute pixels, edges without +1; never normalized, never xywh
labels      of objects 0..K-1; of anchors 0..K-1, K background, -1 ignored
anchors     (R, 4), the boxes that the net starts from
logits      (N, R, K), or (N, R, K + 1) for a loss with a background column
deltas      (N, R, 4): dx, dy, dw, dh from an anchor to a box
match       anchors x objects -> label and box of every anchor: foreground, background, ignored
num_foreground  max(1, foreground anchors summed over processes) / processes: the one normalizer
predictions per anchor, before suppression
candidates  the best (anchor, class) pairs, from which suppression chooses
detections  per object, after suppression, in pixels of the original image
scores      probabilities (..., K), read from the logits by the loss that gave them their meaning

A batch is a dict of tensors, all that data and detector share. G is padded to the next of 16, 32,
64, ..., so that a compiled step meets few shapes.

images          (N, 3, H, W) uint8
boxes           (N, G, 4) float32, in pixels of `images`
labels          (N, G) int64
ignore          (N, G) bool, true for a crowd or difficult object: neither object nor background
valid           (N, G) bool, false for padding rows
sizes           (N, 2) int64, height and width of the content in `images`
original_sizes  (N, 2) int64, height and width of the image file
image_ids       (N,) int64
identities      (N, G) int64, -1 for none; only there when the data has identities
"""
