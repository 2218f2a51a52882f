import torch

from avsi.data.dataset import ImageDataset


def test_a_transform_that_works_in_place_leaves_the_images_alone():
    images = torch.rand(6, 1, 4, 4)
    before = images.clone()
    data = ImageDataset(images, torch.tensor([4, 1, -1]), torch.tensor([0, 1, 1]), lambda x: x.mul_(2))
    for index, row in enumerate((4, 1, 5)):
        x, y = data[index]
        assert torch.equal(x, 2 * before[row])
        assert y == (index > 0)
    assert torch.equal(images, before)
