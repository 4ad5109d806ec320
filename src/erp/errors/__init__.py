"""The one exception by which a call fails, and its shape on the wire.

ProviderError            a call ended without its result
  .code                  one of the closed list in contracts/errors.yaml
  .errors                FieldError entries, each with a JSON Pointer (RFC 6901)
Problem                  the same as an RFC 9457 problem document
"""

from erp.errors.problem import Problem
from erp.errors.provider_error import FieldError, ProviderError

__all__ = ["FieldError", "Problem", "ProviderError"]
