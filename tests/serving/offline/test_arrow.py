import numpy as np
import pyarrow as pa
import pytest

from serving.offline.arrow import numbers, validity_of, values_of

NUMBERS = [*np.typecodes["AllInteger"].replace("p", "").replace("P", ""), *"efd"]


@pytest.mark.parametrize("dtype", NUMBERS)
def test_numbers_come_back_as_they_went(dtype: str):
    values = np.arange(9).astype(dtype)
    column = numbers(values, np.arange(9) != 3)
    assert column.type == pa.from_numpy_dtype(values.dtype)
    for part, expected in ((column, values), (column.slice(2, 5), values[2:7])):
        found = values_of(part)
        assert found.dtype == values.dtype
        np.testing.assert_array_equal(found, expected)
    assert validity_of(column.slice(2, 5)).tolist() == [True, False, True, True, True]
