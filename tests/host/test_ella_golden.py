"""The reference vectors of ELLA: connector, T5 on the host's classes, tokenizer."""

from ella_lmd.tests.golden import ella_cases


def test_every_reference_vector_is_met(golden):
    results = ella_cases.check(golden / "ella")
    assert {name for name, *_ in results} == set(ella_cases.FILES)
    assert [r for r in results if r[1] != r[2] or r[2] == 0] == []
