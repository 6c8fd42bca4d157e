select
    n_nationkey,
    n_name,
    _tidemark_loaded_xid as loaded_xid
from {{ source('raw', 'nation') }}
