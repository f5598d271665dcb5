"""The backbone reads the ImageNet weights of the package as they were trained."""

import timm
import torch
from timm.data import ImageNetInfo

from model.net.backbone import Backbone, load_imagenet
from pipeline.training.student import package_weights
from tests.model.teach.test_tower import photograph

EXPECTED = {
    "military uniform": ("matplotlib", "mpl-data/sample_data/grace_hopper.jpg"),
    "palace": ("sklearn", "datasets/images/china.jpg"),
    "bee": ("sklearn", "datasets/images/flower.jpg"),  # a dahlia, which is no class
}


def test_the_whole_classifier_names_real_photographs_through_our_backbone():
    backbone = Backbone("tf_efficientnet_lite0").eval()
    load_imagenet(backbone, package_weights())
    classifier = timm.create_model("tf_efficientnet_lite0").eval()
    source = torch.load(package_weights(), weights_only=True)
    assert len(source) == len(classifier.state_dict())
    pairs = zip(classifier.state_dict(), source.values(), strict=True)
    classifier.load_state_dict(dict(pairs))
    classes = ImageNetInfo()
    for name, picture in EXPECTED.items():
        pixels = torch.from_numpy(photograph(*picture).copy()).permute(2, 0, 1)[None].float()
        size = (288, 32 * round(288 * pixels.shape[3] / pixels.shape[2] / 32))
        images = torch.nn.functional.interpolate(pixels, size, mode="bilinear", antialias=True)
        with torch.inference_mode():
            *_, coarsest = backbone(images)  # of the last stage; the head is the classifier's own
            x = classifier.bn2(classifier.conv_head(coarsest))
            best = classifier.forward_head(x)[0].topk(5).indices
        assert name in [classes.index_to_description(int(i)).split(",")[0] for i in best]
