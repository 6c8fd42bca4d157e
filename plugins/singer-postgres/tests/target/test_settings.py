"""What becomes of each setting that the MeltanoLabs target and the SDK know: none is passed over without a word."""

from __future__ import annotations

from singer_postgres.target.settings import SETTINGS, WITHOUT_EFFECT
from singer_postgres.target.target import TargetPostgres

CONNECTION = {"host", "port", "user", "password", "database", "sqlalchemy_url", "ssh_tunnel", "ssl_enable", "ssl_mode"}
CONNECTION |= {"ssl_certificate_authority", "ssl_client_certificate_enable", "ssl_client_certificate"}
CONNECTION |= {"ssl_client_private_key", "ssl_storage_directory"}
EVERYWHERE = {"default_target_schema", "hard_delete"}
# chunks have nothing for them to act on: they are the source's values, whole
RECORDS = {"add_record_metadata", "batch_size_rows", "interpret_content_encoding", "sanitize_null_text_characters"}
RECORDS |= {"validate_records"}
# chunks that they would have to change are refused
RECORDS_ALONE = {"stream_maps", "flattening_enabled", "activate_version", "process_activate_version_messages"}
OF_THESE = {"stream_map_config", "faker_config", "flattening_max_depth", "flattening_max_key_length"}
OF_THESE |= {"flattening_separator"}
# ways to the same rows, of which this target has its own
WAYS = {"use_copy", "dialect+driver"}


def test_each_setting_of_the_meltanolabs_target_and_the_sdk_is_honoured_or_refused():
    schema = {"properties": dict(TargetPostgres.config_jsonschema["properties"])}
    TargetPostgres.append_builtin_config(schema)
    others = set(schema["properties"]) - set(SETTINGS["properties"])
    refused = {name for name, _ in WITHOUT_EFFECT}
    assert others == CONNECTION | EVERYWHERE | RECORDS | RECORDS_ALONE | OF_THESE | WAYS | refused
