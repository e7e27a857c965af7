-- One database and one owner for each of Prefect, MLflow and Optuna. Can be run again: it then only sets the passwords.
-- The PostgreSQL image runs it when its volume is empty; by hand: psql -U postgres -f databases.sql
-- The passwords come from the environment, so that none is in a file or on a command line.
\set ON_ERROR_STOP on
\getenv prefect_password PREFECT_DATABASE_PASSWORD
\getenv mlflow_password MLFLOW_DATABASE_PASSWORD
\getenv optuna_password OPTUNA_DATABASE_PASSWORD

SELECT format('CREATE ROLE %I LOGIN', name)
FROM unnest(ARRAY['prefect', 'mlflow', 'optuna']) AS name
WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = name) \gexec

ALTER ROLE prefect PASSWORD :'prefect_password';
ALTER ROLE mlflow PASSWORD :'mlflow_password';
ALTER ROLE optuna PASSWORD :'optuna_password';

SELECT format('CREATE DATABASE %I OWNER %I', name, name)
FROM unnest(ARRAY['prefect', 'mlflow', 'optuna']) AS name
WHERE NOT EXISTS (SELECT FROM pg_database WHERE datname = name) \gexec

-- Otherwise every role may connect to every database.
SELECT format('REVOKE CONNECT ON DATABASE %I FROM PUBLIC', name)
FROM unnest(ARRAY['prefect', 'mlflow', 'optuna']) AS name \gexec
