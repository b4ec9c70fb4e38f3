"""The template as CloudFormation gets it: after the SAM transform, which is where circles and wide policies show."""

import json
from pathlib import Path
from typing import Any

import pytest
from samtranslator.model.exceptions import InvalidDocumentException
from samtranslator.translator.transform import transform
from samtranslator.yaml_helper import yaml_parse

ROOT = Path(__file__).resolve().parents[2]
Template = dict[str, Any]


class NoManagedPolicies:
    """SAM's own policy names are not used: every statement is written by hand."""

    def load(self) -> dict[str, str]:
        return {}


@pytest.fixture(scope="session")
def source() -> Template:
    """template.yaml as it is written."""
    written: Template = yaml_parse((ROOT / "template.yaml").read_text())
    return written


@pytest.fixture(scope="session")
def translated() -> Template:
    """template.yaml after `sam package` and the SAM transform; conditions are still in it."""
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("AWS_DEFAULT_REGION", "us-east-1")
        packaged = yaml_parse((ROOT / "template.yaml").read_text())
        for resource in packaged["Resources"].values():
            for name in {"CodeUri", "ContentUri"} & resource.get("Properties", {}).keys():
                resource["Properties"][name] = "s3://bucket/key"
        try:
            output = transform(packaged, {}, NoManagedPolicies())
        except InvalidDocumentException as error:
            pytest.fail("; ".join(cause.message for cause in error.causes))
    plain: Template = json.loads(json.dumps(output))
    return plain


@pytest.fixture(scope="session")
def resources(translated: Template) -> Template:
    """The translated template's resources by logical id."""
    found: Template = translated["Resources"]
    return found
