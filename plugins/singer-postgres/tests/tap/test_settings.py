"""What becomes of each setting that the MeltanoLabs tap and the SDK know: none is passed over without a word."""

from __future__ import annotations

from singer_postgres.tap.settings import OF_ANOTHER_SLOT, SETTINGS, WITHOUT_EFFECT
from singer_postgres.tap.tap import TapPostgres

CONNECTION = {"host", "port", "user", "password", "database", "sqlalchemy_url", "ssh_tunnel", "ssl_enable", "ssl_mode"}
CONNECTION |= {"ssl_certificate_authority", "ssl_client_certificate_enable", "ssl_client_certificate"}
CONNECTION |= {"ssl_client_private_key", "ssl_storage_directory"}
BY_DISCOVERY = {"filter_schemas", "dates_as_string", "json_as_object"}
BY_OUR_QUERY = {"stream_options", "max_record_count"}
# they have streams sent as records, which the SDK maps
BY_THE_SDK = {"stream_maps", "stream_map_config", "faker_config", "flattening_enabled", "flattening_max_depth"}
BY_THE_SDK |= {"flattening_max_key_length", "flattening_separator"}


def test_each_setting_of_the_meltanolabs_tap_and_the_sdk_is_honoured_or_refused():
    schema = {"properties": dict(TapPostgres.config_jsonschema["properties"])}
    TapPostgres.append_builtin_config(schema)
    others = set(schema["properties"]) - set(SETTINGS["properties"])
    refused = {name for name, _ in WITHOUT_EFFECT.keys() - OF_ANOTHER_SLOT}
    assert others == CONNECTION | BY_DISCOVERY | BY_OUR_QUERY | BY_THE_SDK | refused
