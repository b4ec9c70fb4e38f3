"""What must hold of the stack, whatever is changed in it."""

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
from cfnlint.api import ManualArgs, lint
from edda.index_ranges import Policy
from edda.settings import Settings

ROOT = Path(__file__).resolve().parents[2]
SAM = ROOT / ".venv-sam" / "bin" / "sam"
FUNCTIONS = {
    "ApiFunction",
    "SearchFunction",
    "AnswerFunction",
    "ChunkFunction",
    "EmbedFunction",
    "SweepFunction",
    "MigrateFunction",
}
UNZIPPED_LIMIT_BYTES = 250 * 1024 * 1024  # Lambda's, of a function and its layers together

# Statements that may name all resources, and why.
WILDCARDS = {
    "FunctionPolicy SendTraces": "X-Ray knows no resources",
    "FunctionPolicy AttachToVpc": "Lambda demands the interfaces' actions on all resources",
    "RerankPolicy Rerank": "the action knows no resources; which model may be invoked is said beside it",
}

Template = dict[str, Any]


def of_type(resources: Template, kind: str) -> Template:
    return {name: resource for name, resource in resources.items() if resource["Type"] == kind}


def referred(value: Any) -> set[str]:
    """Every logical id that a value names by Ref, Fn::GetAtt or Fn::Sub."""
    if isinstance(value, list):
        return {name for item in value for name in referred(item)}
    if not isinstance(value, dict):
        return set()
    names = set()
    for key, item in value.items():
        if key == "Ref":
            names.add(item)
        elif key == "Fn::GetAtt":
            names.add(item[0] if isinstance(item, list) else item.split(".")[0])
        elif key == "Fn::Sub":
            text = item if isinstance(item, str) else item[0]
            names.update(name.split(".")[0] for name in re.findall(r"\$\{([^}!]+)\}", text))
        else:
            names |= referred(item)
    return names


def statements(resources: Template) -> list[tuple[str, Template]]:
    """Each statement that lets a function do something, with the policy or role that holds it."""
    found: list[tuple[str, Template]] = []
    for name, resource in resources.items():
        documents = []
        if resource["Type"] == "AWS::IAM::ManagedPolicy":
            documents = [resource["Properties"]["PolicyDocument"]]
        elif resource["Type"] == "AWS::IAM::Role":
            documents = [policy["PolicyDocument"] for policy in resource["Properties"].get("Policies", [])]
        for document in documents:
            for statement in document["Statement"]:
                found.append((name, statement["Fn::If"][1] if "Fn::If" in statement else statement))
    return found


def as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def statements_of(function: str, resources: Template) -> list[Template]:
    """What one function may do, by its role and by the policies that the role carries."""
    (role,) = referred(resources[function]["Properties"]["Role"])
    holders = {role} | referred(resources[role]["Properties"].get("ManagedPolicyArns", []))
    return [statement for holder, statement in statements(resources) if holder in holders]


def test_cfn_lint_finds_nothing_in_the_translated_template(translated: Template) -> None:
    matches = lint(json.dumps(translated), config=ManualArgs(regions=["us-east-1", "eu-central-1"]))

    assert [str(match) for match in matches] == []


@pytest.mark.skipif(not SAM.exists(), reason="SAM is not installed (make setup)")
def test_sam_validates_the_template() -> None:
    answer = subprocess.run(
        [SAM, "validate", "--lint", "--region", "us-east-1", "--template", ROOT / "template.yaml"],
        env={"PATH": "/usr/bin:/bin", "HOME": "/tmp", "SAM_CLI_TELEMETRY": "0", "AWS_EC2_METADATA_DISABLED": "true"},
        capture_output=True,
        text=True,
        check=False,
    )

    assert answer.returncode == 0, answer.stdout + answer.stderr


def test_the_functions_are_the_ones_we_know(resources: Template) -> None:
    assert set(of_type(resources, "AWS::Lambda::Function")) == FUNCTIONS


def test_each_queue_hides_a_message_for_six_times_its_functions_timeout(resources: Template) -> None:
    mappings = of_type(resources, "AWS::Lambda::EventSourceMapping").values()
    assert mappings
    for mapping in mappings:
        (queue,) = referred(mapping["Properties"]["EventSourceArn"])
        (function,) = referred(mapping["Properties"]["FunctionName"])
        timeout_s = resources[function]["Properties"]["Timeout"]
        assert resources[queue]["Properties"]["VisibilityTimeout"] >= 6 * timeout_s, queue


def test_each_queue_takes_single_failures_and_has_a_concurrency(resources: Template) -> None:
    for mapping in of_type(resources, "AWS::Lambda::EventSourceMapping").values():
        assert mapping["Properties"]["FunctionResponseTypes"] == ["ReportBatchItemFailures"]
        assert mapping["Properties"]["ScalingConfig"]["MaximumConcurrency"]


def test_each_queue_has_a_dead_letter_queue_that_keeps_messages_longer(resources: Template) -> None:
    for name in queues(resources):
        properties = resources[name]["Properties"]
        (dead_letters,) = referred(properties["RedrivePolicy"]["deadLetterTargetArn"])
        assert dead_letters == name.replace("Queue", "DeadLetterQueue")
        assert properties["RedrivePolicy"]["maxReceiveCount"] >= 5
        retention = resources[dead_letters]["Properties"]["MessageRetentionPeriod"]
        assert retention > properties["MessageRetentionPeriod"]


def queues(resources: Template) -> list[str]:
    found = [name for name in of_type(resources, "AWS::SQS::Queue") if "DeadLetter" not in name]
    assert found
    return found


def test_each_queue_is_watched(resources: Template) -> None:
    watched = set()
    for alarm in of_type(resources, "AWS::CloudWatch::Alarm").values():
        properties = alarm["Properties"]
        assert "AlarmActions" in properties
        for name in referred(properties["Dimensions"]):
            watched.add((properties["MetricName"], name))
    for queue in queues(resources):
        assert ("ApproximateAgeOfOldestMessage", queue) in watched
        assert ("ApproximateNumberOfMessagesVisible", queue.replace("Queue", "DeadLetterQueue")) in watched
    assert {("Errors", "SweepFunction"), ("Errors", "MigrateFunction")} <= watched


@pytest.mark.parametrize(
    ("name", "metric"),
    [
        ("DeleteBrakeAlarm", "deletes_waiting"),
        ("GivenUpAlarm", "given_up"),
        ("AbandonedEventsAlarm", "deliveries_abandoned"),
    ],
)
def test_what_needs_an_operator_is_watched_where_the_sweep_tells_of_it(
    resources: Template, name: str, metric: str
) -> None:
    alarm = resources[name]["Properties"]
    told = resources["SweepFunction"]["Properties"]["Environment"]["Variables"]
    assert alarm["Namespace"] == told["POWERTOOLS_METRICS_NAMESPACE"]
    assert alarm["Dimensions"] == [{"Name": "service", "Value": told["POWERTOOLS_SERVICE_NAME"]}]
    assert alarm["MetricName"] == metric


def test_an_index_holds_at_least_what_is_built_at_once(source: Template) -> None:
    """Ten million vectors would otherwise be in hundreds of indexes, each of which is searched."""
    least = Policy(memory_bytes=source["Parameters"]["IndexMegabytes"]["MinValue"] * 2**20)
    assert least.largest_rows(dimensions=1024) >= 2 * least.fresh_rows


def test_everything_stored_is_encrypted(resources: Template) -> None:
    for name, queue in of_type(resources, "AWS::SQS::Queue").items():
        assert queue["Properties"]["SqsManagedSseEnabled"] is True, name
    assert resources["Database"]["Properties"]["StorageEncrypted"] is True
    assert "BucketEncryption" in resources["UploadsBucket"]["Properties"]


def test_the_uploads_bucket_is_versioned_private_and_tls_only(resources: Template) -> None:
    bucket = resources["UploadsBucket"]["Properties"]
    (statement,) = resources["UploadsBucketPolicy"]["Properties"]["PolicyDocument"]["Statement"]

    assert bucket["VersioningConfiguration"] == {"Status": "Enabled"}
    assert set(bucket["PublicAccessBlockConfiguration"].values()) == {True}
    assert statement["Effect"] == "Deny"
    assert statement["Condition"] == {"Bool": {"aws:SecureTransport": "false"}}
    assert resources["UploadsBucket"]["DeletionPolicy"] == "Retain"
    rules = {key for rule in bucket["LifecycleConfiguration"]["Rules"] for key in rule}
    assert {"NoncurrentVersionExpiration", "AbortIncompleteMultipartUpload"} <= rules


def test_each_function_has_a_role_and_a_log_group_of_its_own(resources: Template) -> None:
    roles, groups = [], []
    for name in sorted(FUNCTIONS):
        properties = resources[name]["Properties"]
        (role,), (group,) = referred(properties["Role"]), referred(properties["LoggingConfig"]["LogGroup"])
        written = [s["Resource"] for s in statements_of(name, resources) if "logs:PutLogEvents" in s["Action"]]
        assert [referred(resource) for resource in written] == [{group}], name
        roles.append(role)
        groups.append(group)
    assert len(set(roles)) == len(set(groups)) == len(FUNCTIONS)


def test_no_role_is_left_that_sam_made(resources: Template) -> None:
    roles = set(of_type(resources, "AWS::IAM::Role"))
    used = {name for function in FUNCTIONS for name in referred(resources[function]["Properties"]["Role"])}

    assert roles == used


def test_log_groups_end(resources: Template) -> None:
    groups = of_type(resources, "AWS::Logs::LogGroup")
    assert groups
    assert all("RetentionInDays" in group["Properties"] for group in groups.values())


def test_each_function_is_traced(resources: Template) -> None:
    for function in FUNCTIONS:
        assert resources[function]["Properties"]["TracingConfig"] == {"Mode": "Active"}


def test_only_explained_statements_name_all_resources(resources: Template) -> None:
    wide = {f"{holder} {s['Sid']}" for holder, s in statements(resources) if "*" in as_list(s["Resource"])}

    assert wide == WILDCARDS.keys()


def test_search_and_answer_may_call_the_reranker_and_no_other_function_may(
    resources: Template, source: Template
) -> None:
    allowed = {s["Sid"]: s for holder, s in statements(resources) if holder == "RerankPolicy"}
    assert {sid: s["Action"] for sid, s in allowed.items()} == {
        "Rerank": "bedrock:Rerank",
        "RerankByThisModel": "bedrock:InvokeModel",
        "ReadRerankApiKey": "secretsmanager:GetSecretValue",
    }
    assert referred(allowed["RerankByThisModel"]["Resource"]) >= {"RerankModel"}
    names = source["Parameters"]["RerankModel"]["AllowedPattern"]
    assert re.search(names, "amazon.rerank-v1:0")
    assert not re.search(names, "arn:aws:bedrock:us-west-2::foundation-model/amazon.rerank-v1:0")  # the role may not
    assert allowed["ReadRerankApiKey"]["Resource"] == {"Ref": "RerankApiKeySecretArn"}
    users = {name for name in FUNCTIONS if allowed["Rerank"] in statements_of(name, resources)}
    assert users == {"SearchFunction", "AnswerFunction"}
    assert set(source["Rules"]) >= {
        "RerankersOutsideAwsNeedEgress",
        "RerankersNeedAModel",
        "ARerankerOfYourOwnNeedsItsAddress",
    }


def test_answer_may_call_its_chat_model_and_no_other_function_may(resources: Template, source: Template) -> None:
    allowed = {s["Sid"]: s for holder, s in statements(resources) if holder == "ChatPolicy"}
    assert {sid: s["Action"] for sid, s in allowed.items()} == {
        "Chat": "bedrock:InvokeModel",
        "ReadChatApiKey": "secretsmanager:GetSecretValue",
    }
    _, behind_profile, one_model = allowed["Chat"]["Resource"]["Fn::If"]
    assert [referred(one) - {"AWS::Partition", "AWS::Region", "AWS::AccountId"} for one in behind_profile] == [
        {"ChatModel"},
        {"ChatFoundationModel"},
    ]
    assert referred(one_model) >= {"ChatModel"}
    names = source["Parameters"]["ChatModel"]["AllowedPattern"]
    assert re.search(names, "us.amazon.nova-lite-v1:0")
    assert not re.search(names, "arn:aws:bedrock:us-west-2:123456789012:application-inference-profile/a1b2")  # nor this
    assert allowed["ReadChatApiKey"]["Resource"] == {"Ref": "ChatApiKeySecretArn"}
    users = {name for name in FUNCTIONS if allowed["Chat"] in statements_of(name, resources)}
    assert users == {"AnswerFunction"}
    assert set(source["Rules"]) >= {"ChatProvidersOutsideAwsNeedEgress", "ChatProvidersNeedAModel"}


def test_no_statement_allows_all_actions_of_a_service(resources: Template) -> None:
    actions = {action for _, statement in statements(resources) for action in as_list(statement["Action"])}

    assert not {action for action in actions if "*" in action}


def test_what_a_new_object_starts_cannot_make_new_objects(resources: Template) -> None:
    for function in ("ChunkFunction", "EmbedFunction", "SweepFunction"):
        actions = {action for s in statements_of(function, resources) for action in as_list(s["Action"])}
        assert not {action for action in actions if action.startswith("s3:Put")}, function


def test_who_observes_the_bucket_may_look_at_all_that_observing_looks_at(resources: Template) -> None:
    """The emulators enforce no rights: here is what `Observing` and the store of objects ask S3 for."""
    for function in ("ChunkFunction", "SweepFunction"):
        actions = {action for s in statements_of(function, resources) for action in as_list(s["Action"])}
        assert {"s3:GetObject", "s3:ListBucket", "s3:ListBucketVersions"} <= actions, function


def test_only_migrate_knows_the_schemas_owner(resources: Template) -> None:
    for function in FUNCTIONS - {"MigrateFunction"}:
        variables = resources[function]["Properties"]["Environment"]["Variables"]
        assert not {name for name in variables if "OWNER" in name}, function
        assert "Database" not in {
            name for s in statements_of(function, resources) for name in referred(s["Resource"])
        }, function


def test_functions_come_after_the_migration(resources: Template) -> None:
    for function in FUNCTIONS - {"MigrateFunction"}:
        assert "Migration" in as_list(resources[function].get("DependsOn", [])), function


def test_every_variable_is_a_setting(resources: Template) -> None:
    for function in FUNCTIONS:
        for name in resources[function]["Properties"]["Environment"]["Variables"]:
            if name.startswith("EDDA_"):
                assert name.removeprefix("EDDA_").lower() in Settings.model_fields, name
            else:
                assert name.startswith(("POWERTOOLS_", "AWS_", "MALLOC_", "OPENBLAS_")), name


def test_the_api_function_answers_before_the_gateway_gives_up(resources: Template) -> None:
    for name, integration in of_type(resources, "AWS::ApiGatewayV2::Integration").items():
        function = function_of(integration["Properties"]["IntegrationUri"], resources)
        seconds = resources[function]["Properties"]["Timeout"]
        assert seconds * 1000 < integration["Properties"]["TimeoutInMillis"], name


def function_of(uri: Any, resources: Template) -> str:
    """The function that an address leads to, whether by its alias or at once."""
    functions = set()
    for name in referred(uri) & resources.keys():
        alias = resources[name]["Type"] == "AWS::Lambda::Alias"
        functions |= referred(resources[name]["Properties"]["FunctionName"]) if alias else {name}
    (function,) = functions
    return function


AHEAD = {"Api", "Search", "Answer"}  # whom somebody waits for


def test_by_default_no_version_is_published_and_nothing_starts_ahead(source: Template, resources: Template) -> None:
    assert source["Parameters"]["StartMode"]["Default"] == "on-demand"
    published = of_type(resources, "AWS::Lambda::Version") | of_type(resources, "AWS::Lambda::Alias")
    assert set(published) == {f"{name}{kind}" for name in AHEAD for kind in ("Version", "Alias")}
    assert {resource["Condition"] for resource in published.values()} == {"StartsAhead"}


@pytest.mark.parametrize("name", sorted(AHEAD))
def test_what_starts_ahead_is_what_requests_reach(name: str, resources: Template) -> None:
    ahead = {"Fn::If": ["StartsAhead", {"Ref": f"{name}Alias"}, {"Fn::GetAtt": [f"{name}Function", "Arn"]}]}
    permitted = {"Fn::If": ["StartsAhead", {"Ref": f"{name}Alias"}, {"Ref": f"{name}Function"}]}

    assert resources[f"{name}Integration"]["Properties"]["IntegrationUri"] == ahead
    assert resources[f"{name}InvokePermission"]["Properties"]["FunctionName"] == permitted
    assert resources[f"{name}Alias"]["Properties"]["FunctionVersion"] == {"Fn::GetAtt": [f"{name}Version", "Version"]}


@pytest.mark.parametrize("name", sorted(AHEAD))
def test_a_new_package_or_deployment_is_a_new_version(name: str, resources: Template) -> None:
    """A version never changes, so the alias would answer with old code for ever: its description has to be another."""
    layers = {layer for layer in referred(resources[f"{name}Function"]["Properties"]["Layers"]) if "Model" not in layer}
    described = referred(resources[f"{name}Version"]["Properties"]["Description"])

    assert described == {"DeploymentId"} | layers - {"AWS::NoValue"}
    # Lambda makes a version only of a function that has changed: so does each, with each deployment.
    assert "DeploymentId" in referred(resources[f"{name}Function"]["Properties"]["Description"])


@pytest.mark.parametrize("name", sorted(AHEAD))
def test_versions_that_were_replaced_are_deleted(name: str, resources: Template) -> None:
    """Each would be billed for its snapshot as long as it is there."""
    assert not {"DeletionPolicy", "UpdateReplacePolicy"} & set(resources[f"{name}Version"])


@pytest.mark.parametrize("name", sorted(AHEAD))
def test_snapshots_and_provisioned_environments_exclude_each_other(
    name: str, source: Template, translated: Template, resources: Template
) -> None:
    snapshots = resources[f"{name}Function"]["Properties"]["SnapStart"]
    provisioned = resources[f"{name}Alias"]["Properties"]["ProvisionedConcurrencyConfig"]

    assert snapshots == {"ApplyOn": {"Fn::If": ["UseSnapStart", "PublishedVersions", "None"]}}
    assert provisioned["Fn::If"][0] == "UseProvisioned"
    chosen = [translated["Conditions"][condition] for condition in ("UseSnapStart", "UseProvisioned")]
    assert chosen == [{"Fn::Equals": [{"Ref": "StartMode"}, mode]} for mode in ("snapstart", "provisioned")]
    # Lambda takes no snapshot of a function with more disk than that, nor of one without a published version.
    assert "EphemeralStorage" not in resources[f"{name}Function"]["Properties"]
    assert set(source["Rules"]) >= {"SnapStartNeedsItsRuntimes", "PublishedVersionsNeedADeploymentId"}


def test_a_database_of_ones_own_needs_no_network(translated: Template, resources: Template) -> None:
    only_with_aurora = {name for name in translated["Conditions"] if needs_aurora(name, translated["Conditions"])}
    for name, resource in resources.items():
        if resource["Type"].startswith(("AWS::EC2::", "AWS::RDS::", "AWS::SecretsManager::")):
            assert resource.get("Condition") in only_with_aurora, name


def needs_aurora(name: str, conditions: Template) -> bool:
    body = conditions[name]
    parts = [part["Condition"] for part in body.get("Fn::And", []) if "Condition" in part]
    return name == "UseAurora" or any(needs_aurora(part, conditions) for part in parts)


def test_every_parameter_explains_itself(source: Template) -> None:
    for name, parameter in source["Parameters"].items():
        assert parameter["Description"].strip(), name
        assert "Default" in parameter, name
        assert parameter["Type"] in {"String", "Number"}, name


def test_a_build_is_for_what_is_deployed_unless_said_otherwise(source: Template) -> None:
    runtime = source["Parameters"]["PythonRuntime"]["Default"]
    architecture = source["Parameters"]["Architecture"]["Default"]

    for makefile in (ROOT / "Makefile", ROOT / "layers" / "Makefile"):
        text = makefile.read_text()
        assert f"RUNTIME ?= {runtime}\n" in text
        assert f"ARCHITECTURE ?= {architecture}\n" in text
    assert f"PythonRuntime={runtime} Architecture={architecture}" in (ROOT / "samconfig.toml").read_text()


@pytest.mark.parametrize("build", [".aws-sam/build", ".edda/build", ".edda/tests/build"])
@pytest.mark.parametrize("function", sorted(FUNCTIONS))
def test_a_function_and_its_layers_fit_into_lambda(function: str, build: str, resources: Template) -> None:
    folder = ROOT / build
    if not (folder / "template.yaml").exists():
        pytest.skip(f"no build in {build}")
    # SAM adds a hash to a layer's logical id.
    layers = {
        re.sub("Layer[0-9a-f]{10}$", "Layer", name) for name in referred(resources[function]["Properties"]["Layers"])
    }
    parts = [function, *(layers - {"AWS::NoValue"})]
    files = [file for part in parts for file in (folder / part).rglob("*") if file.is_file()]

    size_bytes = sum(file.stat().st_size for file in files)
    print(f"{function}: {size_bytes / 1024**2:.0f} MB with {', '.join(sorted(layers))}")

    assert size_bytes <= UNZIPPED_LIMIT_BYTES


def test_the_layer_keeps_the_descriptions_of_the_services_that_are_called() -> None:
    kept = re.search(r"^AWS_SERVICES := (.*)$", (ROOT / "layers" / "Makefile").read_text(), re.M)
    assert kept is not None
    code = "\n".join(path.read_text() for path in (ROOT / "layers" / "core" / "edda").rglob("*.py"))
    called = set(re.findall(r"""(?:clients\.get\(|\.client\(|BedrockClient\(\s*session,)\s*"([a-z0-9-]+)\"""", code))

    assert {"s3", "bedrock-runtime", "bedrock-agent-runtime"} <= called
    assert called <= set(kept[1].split())
