from __future__ import annotations

import pytest
from hypothesis import settings

# No files in the checkout, no failures because the machine is busy.
settings.register_profile("unit", database=None, deadline=None)
settings.load_profile("unit")

pytest.register_assert_rewrite("helpers")
