"""Parameters that are checked: types of fields, and one line for the first mistake in them."""

from types import UnionType
from typing import Annotated, Self, Union, get_args, get_origin

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from llmva.core.errors import InputError


def require_distinct(values: list) -> list:
    """Return values of a parameter, or raise a `ValueError` where one stands twice."""
    if len(set(values)) < len(values):
        raise ValueError("names one value twice; name it once")
    return values


# Far beyond any study; a slip of the keyboard would otherwise never end.
Count = Annotated[int, Field(gt=0, le=10_000_000)]
# Torch aborts the process for want of memory with many more.
Threads = Annotated[int, Field(gt=0, le=1024)]
Share = Annotated[float, Field(ge=0, le=1)]
Weight = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Penalty = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Name = Annotated[str, Field(min_length=1)]
Counts = Annotated[list[Count], Field(min_length=1), AfterValidator(require_distinct)]
Degree = Annotated[int, Field(ge=0, le=90)]
Degrees = Annotated[list[Degree], Field(min_length=1), AfterValidator(require_distinct)]
# What pydantic says of a value that has another form.
OTHER_FORM = ("literal_error", "string_type", "list_type", "model_type")


class StrictModel(BaseModel):
    """Parameters that cannot be changed, with no field but those that are known, each of exactly its type."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    @classmethod
    def checked(cls, values: dict, source: str = "parameters") -> Self:
        """Build parameters, or raise an `InputError` that names the source, the field and the fix."""
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            raise InputError(f"{source}: {_first_mistake(error, cls)}") from None

    @property
    def values(self) -> dict:
        """The fields as plain values, without those that say nothing."""
        return self.model_dump(exclude_none=True)


def _first_mistake(error: ValidationError, kind: type[StrictModel]) -> str:
    mistakes = error.errors()
    # A field with two forms has mistakes in both: the deepest tells most, and of those one of the form that was meant.
    same_field = [each for each in mistakes if each["loc"][:1] == mistakes[0]["loc"][:1]]
    mistake = max(same_field, key=lambda each: (len(each["loc"]), each["type"] not in OTHER_FORM))
    field, known = _find_field(kind, mistake["loc"])
    match mistake["type"]:
        case "extra_forbidden":
            return f"{field}: unknown parameter; known are {', '.join(known)}"
        case "missing":
            return f"{field}: missing; add it (see papermill_params/tiny-llama.yaml)"
        case "value_error":
            # One of the whole file names its field itself.
            return f"{field}: {mistake['ctx']['error']}" if field else str(mistake["ctx"]["error"])
    return f"{field}: is {mistake['input']!r}; {mistake['msg'][0].lower()}{mistake['msg'][1:]}"


def _find_field(kind: type[StrictModel], place: tuple[str | int, ...]) -> tuple[str, list[str]]:
    """Return the name of a mistake's field as the file has it, and the fields that are known where it stands."""
    names, is_form = [], False
    for part in place:
        if is_form:
            # Of a field with several forms, pydantic names the form, which is no part of the file.
            is_form = False
            continue
        names.append(str(part))
        if part in kind.model_fields:
            annotation = kind.model_fields[part].annotation
            forms = [form for form in get_args(annotation) if form is not type(None)]
            is_form = get_origin(annotation) in (Union, UnionType) and len(forms) > 1
            parts = [each for each in (annotation, *forms) if isinstance(each, type) and issubclass(each, StrictModel)]
            kind = next(iter(parts), kind)
    return ".".join(names), list(kind.model_fields)
