-- Who dumps and restores the warehouse: reads all, makes databases, and gives tables to their owners. No superuser.
CREATE ROLE tidemark_keeper LOGIN CREATEDB;
GRANT pg_read_all_data, tidemark_loader, tidemark_transformer TO tidemark_keeper;
ALTER DATABASE warehouse OWNER TO tidemark_keeper;
