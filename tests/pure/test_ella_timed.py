"""Conditioning tokens that follow edits made by nodes which know nothing of ELLA."""

import contextlib
import copy
import pickle
from types import SimpleNamespace

import pytest
import torch
from ella_lmd.ella.timed import TimedTokens, is_timed, plain, resolve, sources

OLD, NEW, OTHER = (torch.randn(1, 4, 3, generator=torch.Generator().manual_seed(i)) for i in range(3))
CLIP = torch.randn(1, 5, 3, generator=torch.Generator().manual_seed(9))


@pytest.fixture(params=[True, False], ids=["inference", "normal"])
def tokens(request):
    with torch.inference_mode(request.param):
        yield TimedTokens.wrap(OLD.clone(), "text")


def at(source, fixed):
    return {"text": NEW, "second": OTHER}[source]


@pytest.mark.parametrize(
    "edit",
    [
        lambda x: torch.cat([x, CLIP], 1),
        lambda x: torch.cat((CLIP, x), dim=1),
        lambda x: torch.cat(tensors=[x, CLIP], dim=1),
        lambda x: torch.cat([CLIP, CLIP.to(x), x.to(CLIP)], 1),
        lambda x: torch.mul(x, 0.3) + torch.mul(OTHER, 0.7),
        lambda x: OTHER * 0.7 + 0.3 * x,
        lambda x: x[:, :2],
        lambda x: x[:, 1:] - 2 * x[:, :-1],
        lambda x: x.repeat(3, 1, 1).narrow(0, 0, 2),
        lambda x: torch.lerp(x, OTHER, 0.25),
        lambda x: x.chunk(2, dim=1)[1],
        lambda x: torch.nn.functional.pad(x, (0, 0, 0, 2)),
        lambda x: x.clone().to("cpu").contiguous() / 3,
    ],
)
def test_an_edit_is_done_again_with_the_new_tokens(tokens, edit):
    edited = edit(tokens)
    assert is_timed(edited)
    assert torch.equal(plain(edited), edit(OLD))
    assert torch.allclose(resolve(edited, at), edit(NEW), atol=1e-7)
    assert list(sources(edited)) == ["text"]


def test_two_texts_in_one_conditioning_each_follow(tokens):
    second = TimedTokens.wrap(OTHER.clone(), "second")
    mixed = torch.cat([tokens * 0.5 + second * 0.5, second], 1)
    assert list(sources(mixed)) == ["second", "text"] or list(sources(mixed)) == ["text", "second"]
    assert torch.allclose(resolve(mixed, at), torch.cat([NEW * 0.5 + OTHER * 0.5, OTHER], 1))


def test_half_precision_tokens_keep_their_dtype(tokens):
    assert resolve(tokens.half(), at).dtype == torch.float16


@pytest.mark.parametrize("edit", [torch.zeros_like, torch.relu, lambda x: x.norm(), lambda x: x > 0])
def test_other_operations_give_plain_tensors(tokens, edit):
    result = edit(tokens)
    assert not isinstance(result, TimedTokens)
    assert torch.equal(result, edit(OLD))


def test_a_tensor_that_only_takes_over_dtype_and_device_stays_what_it_is(tokens):
    assert not is_timed(CLIP.to(tokens))


@pytest.mark.parametrize("write", ["item", "multiply", "method"])
def test_tokens_that_were_written_into_are_no_longer_recomputed(tokens, write):
    mine = tokens.clone()
    if write == "item":
        mine[:, 0] = 0
    elif write == "multiply":
        mine *= 2
    else:
        mine.add_(1)
    assert not is_timed(mine)
    assert not is_timed(mine + 1)
    assert is_timed(tokens)


def test_writing_reaches_every_name_of_the_same_tokens(tokens):
    mine = also_mine = tokens.clone()
    mine *= 2
    assert not is_timed(also_mine)


def test_an_operation_that_changes_nothing_leaves_the_tokens_an_origin_of_their_own(tokens):
    same = tokens.contiguous()
    same.mul_(1)
    assert not is_timed(same) and is_timed(tokens)


def test_a_result_written_into_a_given_tensor_is_plain(tokens):
    assert not is_timed(torch.mul(tokens, 2, out=torch.empty_like(OLD)))


def test_only_these_tokens_count_as_timed_and_a_plain_tensor_is_handed_back():
    assert not is_timed(SimpleNamespace(origin="text"))
    assert plain(CLIP) is CLIP


def test_everything_is_recomputed_on_the_wanted_device(tokens):
    def there(source, fixed):
        return at(source, fixed).to(fixed.device)

    assert resolve(torch.cat([tokens, CLIP], 1), there, "meta").device.type == "meta"
    assert resolve(CLIP, there, "meta").device.type == "meta"


def test_copies_follow_and_files_hold_plain_numbers(tokens):
    assert is_timed(copy.deepcopy([tokens])[0]) and is_timed(copy.copy(tokens))
    assert type(pickle.loads(pickle.dumps(tokens))) is torch.Tensor


def test_a_network_that_reads_the_tokens_is_reported_and_computes_as_usual():
    read = []
    tokens = TimedTokens.wrap(OLD.clone(), "text", lambda width, wanted: read.append((width, wanted)))
    weight = torch.randn(2, 3)
    out = torch.nn.functional.linear(torch.cat([tokens, CLIP], 1).to(torch.float32), weight)
    assert read == [(3, 3)]
    assert torch.equal(out, torch.nn.functional.linear(torch.cat([OLD, CLIP], 1), weight))


@pytest.mark.parametrize(
    "read, wanted",
    [
        (lambda x: torch.nn.functional.linear(x, torch.zeros(2, 5)), 5),
        (lambda x: torch.nn.functional.linear(x, weight=torch.zeros(2, 5)), 5),
        (lambda x: torch.matmul(x, torch.zeros(3, 2)), 3),
        (lambda x: torch.nn.functional.layer_norm(x, (3,)), 3),
    ],
)
def test_the_report_names_the_width_that_the_layer_takes(read, wanted):
    reports = []
    with contextlib.suppress(RuntimeError):  # a layer of another width refuses them afterwards
        read(TimedTokens.wrap(OLD.clone(), "text", lambda *widths: reports.append(widths)))
    assert reports == [(3, wanted)]


def test_tokens_that_report_to_nobody_are_read_as_usual(tokens):
    weight = torch.randn(2, 3)
    assert torch.equal(torch.nn.functional.linear(tokens, weight), torch.nn.functional.linear(OLD, weight))
