from serving.acceptance import judge
from serving.manifest import Acceptance

THRESHOLD = Acceptance(min_confidence=0.9, chosen_on="default")


def test_a_confident_prediction_of_a_good_picture_is_accepted():
    assert judge(0.9, [], THRESHOLD) == (True, [])


def test_low_confidence_is_a_reason_against():
    assert judge(0.899, [], THRESHOLD) == (False, ["low_confidence"])


def test_what_the_picture_lacks_stands_beside_it():
    assert judge(0.5, ["several_digits"], THRESHOLD) == (False, ["several_digits", "low_confidence"])
    assert judge(1.0, ["several_digits"], THRESHOLD) == (False, ["several_digits"])
